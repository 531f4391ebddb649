"""Thresholds of the rules for activities, postures and hands, in metres, radians and seconds."""

from stages.base import StageConfig


class ActivityThresholds(StageConfig):
    """Limits of the rules for activities of the whole body."""

    handstand_upright: float = 0.6
    """Minimum downward component of the pelvis' up axis in a handstand."""
    handstand_s: float = 0.4
    """Minimum duration of a handstand."""
    hang_overhead_ratio: float = 0.1
    """Hanging: both wrists are higher than the head by this share of the arm."""
    hang_hand_mps: float = 0.12
    """Maximum mean speed of both wrists of a hanging person."""
    hang_foot_mps: float = 0.2
    """Minimum mean speed of both ankles: hanging feet swing, standing ones do not."""
    hang_s: float = 0.8
    """Minimum duration of hanging."""
    climb_least_m: float = 0.35
    """Minimum rise or descent of the body in a climb."""
    climb_slowest_mps: float = 0.05
    """Minimum mean vertical speed of a climb: a fit that drifts is slower."""
    climb_fastest_mps: float = 0.9
    """Maximum mean vertical speed of a climb: a jump or a fall is faster."""
    climb_gripping: float = 0.6
    """Minimum share of a climb with a hand above the neck."""
    climb_knee_rad: float = 0.9
    """Minimum flexion that both knees reach in a climb."""
    ride_s: float = 1.5
    """Minimum duration of pedalling, and window of its means."""
    ride_round: float = 0.55
    """Minimum ratio of the shorter to the longer axis of the ankles' path: a stride is longer than high."""
    ride_radius_m: tuple[float, float] = (0.06, 0.28)
    """Minimum and maximum mean radius of the ankles' path."""
    ride_radps: float = 3.0
    """Minimum mean rate at which the ankles turn, over the top forwards."""
    ride_knee_rad: float = 0.3
    """Minimum flexion of the knees: on a saddle they never straighten."""
    ride_bob_m: float = 0.02
    """Maximum standard deviation of the pelvis height while pedalling."""
    dance_window_s: float = 3.0
    """Window of the means by which a dance is recognised."""
    dance_s: float = 2.0
    """Minimum duration of a dance."""
    dance_net_share: float = 0.6
    """Maximum net displacement in the window as a share of the way: steps of a dance lead nowhere."""
    dance_foot_mps: float = 0.45
    """Minimum mean speed of the slower foot."""
    dance_mps: float = 0.25
    """Minimum mean speed of the pelvis over the ground."""
    dance_hand_mps: float = 0.5
    """Minimum mean speed of the hands relative to the neck."""
    dance_upright_rad: float = 0.8
    """Maximum tilt of the trunk."""
    dance_level_m: float = 0.35
    """Maximum change of the pelvis height in the window: one who climbs about does not dance."""
    dance_rhythm: float = 0.35
    """Minimum correlation of the legs' pose with itself some beats later."""
    dance_jump_m: float = 0.35
    """Minimum rise of a jump within a dance; lower ones are steps of it."""


class HandThresholds(StageConfig):
    """Limits of the rules for clapping, hands at the face and throwing."""

    clap_width_m: float = 0.12
    """Minimum distance by which clapping hands part."""
    clap_gap_m: float = 0.14
    """Maximum distance of the palms' centres when they meet."""
    clap_longest_half_s: float = 0.6
    """Maximum time in which the hands meet or part."""
    clap_halves: int = 2
    """Minimum number of half cycles, meetings and partings together."""
    clap_least: int = 2
    """Minimum number of meetings."""
    clap_ahead_ratio: float = 0.15
    """Clapping hands are ahead of the neck by more than this share of the arm."""
    face_above_m: float = 0.05
    """Height of the middle of the face above the head joint, along the neck."""
    face_ahead_m: float = 0.1
    """Distance of the face ahead of the head joint."""
    face_near_m: float = 0.2
    """Maximum distance of the palm's centre from the middle of the face."""
    face_hand_mps: float = 0.35
    """Maximum mean speed of the hand relative to the head while it is at the face."""
    face_elbow_rad: float = 1.5
    """Minimum flexion of the elbow with a hand at the face."""
    face_other_ratio: float = 0.2
    """The other hand is below its shoulder by more than this share of the arm."""
    face_s: float = 0.8
    """Minimum duration of a hand at the face."""
    face_brought_s: float = 1.5
    """Time before and after within which the hand is low."""
    face_from_ratio: float = 0.3
    """A low hand is below the shoulder by more than this share of the arm."""
    throw_way_ratio: float = 0.7
    """Minimum forward way of a throwing hand, as a share of the arm."""
    throw_behind_ratio: float = 0.15
    """A throw begins no farther ahead of the shoulder than this share of the arm."""
    throw_above_ratio: float = 0.1
    """A throw begins higher above the shoulder than this share of the arm."""
    throw_bent_rad: float = 0.9
    """Minimum flexion of the elbow at the start of a throw."""
    throw_straightens_rad: float = 0.5
    """Minimum change of the elbow in a throw."""
    throw_mps: float = 3.2
    """Minimum top speed of a throwing wrist relative to the shoulder."""
    throw_longest_s: float = 0.6
    """Maximum time for which the hand moves forwards in a throw."""
    wave_sinks_m: float = 0.03
    """Maximum change of the pelvis height during a wave, in addition to `wave_sinks_mps`: a climber's hands move with the body."""
    wave_sinks_mps: float = 0.03
    """The same per second of the wave, by which an estimate may drift."""
    wave_hurries_mps: float = 1.6
    """Maximum mean speed over the ground of a person who waves."""
    wave_low_ratio: float = 0.1
    """A low waving hand is below the shoulder by more than this share of the arm."""
    wave_alone_ratio: float = 0.6
    """Maximum speed of the other hand during a low wave, as a share of the waving hand's."""
    wave_stands_mps: float = 0.12
    """Mean speed over the ground below which a person waves with two low hands all the same."""
    wave_elbow_share: float = 0.24
    """Maximum standard deviation of the elbow's height in a wave, but for a steady rise or fall, as a share of the wave's width:
    who wipes moves the whole arm up and down."""
    reclaim_s: float = 0.8
    """Time within which a punching elbow bends again; a hand that stays out was offered or shown."""
    slow_punch_mps: float = 2.6
    """Top speed of the fist below which a punch needs a straight arm and a foot that stands."""
    slow_punch_elbow_rad: float = 0.7
    """Maximum flexion at the end of a slow punch."""
    slow_punch_foot_mps: float = 1.5
    """Maximum speed of the slower foot during a slow punch."""
    unreturned_mps: float = 4.5
    """Top speed above which a fist that stays out has punched all the same."""


class StrideThresholds(StageConfig):
    """Limits of the rules that compare the body's way with what the legs do, and that tell steps from lifted legs."""

    surest: float = 0.6
    """Disagreement of the body's velocity with the legs', as a share of the former, up to which the length of a way is told."""
    sure: float = 0.9
    """Disagreement up to which the direction of a way is told, and backward or sideways steps at all."""
    carried_share: float = 0.5
    """Mean speed of the feet relative to the body, as a share of the body's, below which something carries it."""
    turning_m_per_rad: float = 0.35
    """Length of a way per radian of turning up to which backward and sideways steps belong to the turn."""
    forward_mps: float = 0.35
    """Minimum velocity forwards of striding legs."""
    width_m: float = 0.25
    """Minimum distance by which the ankles pass each other in a stride."""
    least_turns: int = 2
    """Minimum number of times that the legs change between ahead and behind."""
    kick_ratio: float = 3.6
    """Minimum ratio of a kicking foot's top speed to the mean speed of the other foot, which bears the body."""
    raised_m: float = 0.25
    """Minimum height of a foot, above where it leaves or meets the ground, in a movement that is no step but lifts the leg."""
    held_out_ratio: float = 0.4
    """Minimum distance of a lifted foot to the side of the hip or ahead of it, as a share of the leg."""
    stays_share: float = 0.4
    """Maximum speed of a body that stays where it is, as a share of the speed that its legs show."""
    least_s: float = 1.0
    """Minimum duration of walking on the spot."""


class PostureThresholds(StageConfig):
    """Limits of the rules for standing, sitting and kneeling, and for bending to the ground."""

    stand_knee_rad: float = 0.6
    """Maximum flexion of the straighter knee of a standing person."""
    stand_lift_m: float = 0.1
    """Maximum height of the foot of a leg that bears the body."""
    kneel_knee_m: float = 0.2
    """Maximum height of a knee joint on the ground."""
    kneel_above_m: float = 0.14
    """Minimum height of the pelvis above the knees of a kneeling person."""
    kneel_ratio: float = 0.8
    """Kneeling: the pelvis is below this share of its standing height."""
    floor_ratio: float = 0.25
    """Sitting on the ground: the pelvis is below this share of its standing height; a squatting person's is higher."""
    bow_longest_s: float = 4.0
    """Maximum duration of a bow; a longer lean is a stance."""
    bow_turn_rad: float = 0.8
    """Maximum change of heading during a bow."""
    bow_knee_rad: float = 0.7
    """Maximum flexion of the straighter knee in a bow."""
    bow_hand_ratio: float = 0.45
    """In a bow both wrists stay above this share of the pelvis' standing height; lower ones reach down."""
    pick_hand_ratio: float = 0.35
    """A hand that picks something up is below this share of the pelvis' standing height."""
    pick_lean_rad: float = 0.5
    """Minimum lean of the trunk of a person who picks something up with nearly straight legs."""
    pick_longest_s: float = 4.0
    """Maximum duration of picking something up."""
