"""Rules for the trunk."""

from stages.language.rules import signals
from stages.language.rules.kinematics import Kinematics
from stages.language.rules.movements import PartMovements, change
from stages.language.rules.signals import Span
from stages.language.rules.thresholds import Thresholds


def torso_events(k: Kinematics, busy: list[Span], limits: Thresholds) -> PartMovements:
    """Bend and extend (forwards, backwards, sideways), and swing for a twist; not in `busy` spans (lying, tumbling), where the
    trunk angles are not a lean."""
    part = PartMovements("torso", len(k), limits)
    part.spans += busy
    for span in signals.sweeps(k.pitch, limits.torso_least_rad):
        if not part.is_free(span):
            continue
        first, last = float(k.pitch[span[0]]), float(k.pitch[span[1] - 1])
        if abs(last) < abs(first):
            part.add("extend", span, change(k.pitch, span), joint="spine1")
        else:
            manner = "back" if last < 0 else "down" if last > limits.bend_down_rad else ""
            part.add("bend", span, change(k.pitch, span), joint="spine1", manner=manner)
    for span in signals.sweeps(k.roll, limits.torso_least_rad):
        if part.is_free(span):
            first, last = float(k.roll[span[0]]), float(k.roll[span[1] - 1])
            away = abs(last) >= abs(first)
            side = "left" if (last > first) == away else "right"
            kind, manner = ("bend", "side") if away else ("extend", "")
            part.add(kind, span, change(k.roll, span), joint="spine2", side=side, manner=manner)
    for span in signals.sweeps(k.twist, limits.twist_least_rad):
        if part.is_free(span):
            side = "left" if k.twist[span[1] - 1] > k.twist[span[0]] else "right"
            part.add("swing", span, change(k.twist, span), joint="spine3", side=side)
    part.spans = part.spans[len(busy) :]
    return part
