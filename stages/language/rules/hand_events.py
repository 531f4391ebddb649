"""Rules for what hands do together, at the face, or with something light: clapping, hands at the face, throwing."""

import numpy as np
from jaxtyping import Bool

from schemas.records import FPS
from schemas.skeleton import swap_sides
from stages.language.rules import signals
from stages.language.rules.activity_thresholds import HandThresholds
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import PartMovements, path_speed


def add_claps(
    parts: dict[str, PartMovements], k: Kinematics, calm: Bool[np.ndarray, "T"], limits: HandThresholds
) -> None:
    """Claps of both arms: the hands meet in front of the body and part again, at least twice."""
    left, right = k.in_body("left_hand"), k.in_body("right_hand")
    gap = np.linalg.norm(left - right, axis=-1)
    centre = (left + right) / 2 - k.in_body("neck")
    in_front = (centre[:, 2] > limits.clap_ahead_ratio * k.size.arm_m) & (abs(centre[:, 0]) < 0.5 * k.size.arm_m)
    for (first, last), width in signals.oscillations(
        gap, limits.clap_width_m, 2, limits.clap_longest_half_s * FPS, limits.clap_halves
    ):
        points = [first + point for point in signals.turning_points(gap[first:last], limits.clap_width_m)]
        closed = [point for point in points if gap[point] < limits.clap_gap_m]
        evenly = len(points) - 1 <= 2 * len(closed) + 1
        if len(closed) >= limits.clap_least and evenly and (in_front & calm)[closed].all():
            span = (closed[0], closed[-1] + 1)
            span = (max(0, span[0] - 3), min(len(k), span[1] + 3))
            if all(part.is_free(span) for part in parts.values()):
                for part in parts.values():
                    part.add("clap", span, width, joint=f"{part.side}_hand", speed=path_speed(gap, span))


def add_hands_to_face(part: PartMovements, k: Kinematics, calm: Bool[np.ndarray, "T"], limits: HandThresholds) -> None:
    """A hand that comes from below to the front of the face and stays there for a while, the other one low: drinking, eating, a
    phone, brushing. Two raised hands are a guard or a grip."""
    other = swap_sides(f"{part.side}_wrist")
    other_low = (
        k.in_body(other)[:, 1]
        < k.in_body(swap_sides(f"{part.side}_shoulder"))[:, 1] - limits.face_other_ratio * k.size.arm_m
    )
    hand, head = k.in_body(f"{part.side}_hand"), k.in_body("head")
    up = head - k.in_body("neck")
    up = up / np.linalg.norm(up, axis=-1, keepdims=True).clip(1e-6)
    forward = np.array([0.0, 0.0, 1.0])
    face = head + limits.face_above_m * up + limits.face_ahead_m * forward
    near = np.linalg.norm(hand - face, axis=-1)
    raised = hand[:, 1] > k.in_body(f"{part.side}_shoulder")[:, 1]
    held = calm & other_low & raised & (k.elbow[part.side] > limits.face_elbow_rad) & (near < limits.face_near_m)
    low = hand[:, 1] < k.in_body(f"{part.side}_shoulder")[:, 1] - limits.face_from_ratio * k.size.arm_m
    for span in signals.spans_of(held, round(limits.face_s * FPS), round(0.3 * FPS)):
        brought = low[max(0, span[0] - round(limits.face_brought_s * FPS)) : span[0]].any() or low[span[1] :].any()
        still = path_speed(hand - head, span) < limits.face_hand_mps
        if brought and still and part.is_free(span):
            part.add("hand_to_face", span, float(near[slice(*span)].mean()), joint=f"{part.side}_hand")


def add_throws(part: PartMovements, k: Kinematics, limits: HandThresholds) -> None:
    """Overarm throws: a hand behind and above the shoulder whips forwards, the elbow straightening, and comes down in front."""
    hand = (k.in_body(f"{part.side}_wrist") - k.in_body(f"{part.side}_shoulder")) * [part.sign, 1.0, 1.0]
    ahead, height, arm_m = hand[:, 2], hand[:, 1], k.size.arm_m
    speed = np.linalg.norm(signals.derivative(hand, FPS), axis=-1)
    for span in signals.sweeps(ahead, limits.throw_way_ratio * arm_m):
        first, last = span[0], span[1] - 1
        drawn = ahead[first] < limits.throw_behind_ratio * arm_m and height[first] > limits.throw_above_ratio * arm_m
        released = ahead[last] > ahead[first] and k.elbow[part.side][first] > limits.throw_bent_rad
        peak = first + int(np.argmax(speed[first : last + 1]))
        straightens = (
            k.elbow[part.side][first] - k.elbow[part.side][first : last + 1].min() > limits.throw_straightens_rad
        )
        quick = speed[peak] > limits.throw_mps and last - first < limits.throw_longest_s * FPS
        if drawn and released and straightens and quick and part.is_free(span):
            end = min(len(k), span[1] + round(0.2 * FPS))
            way = float(np.linalg.norm(hand[last] - hand[first]))
            part.add("throw", (first, end), way, joint=f"{part.side}_wrist", speed=float(speed[peak]))
