"""Thresholds of the caption rules in metres, radians and seconds."""

from stages.base import StageConfig
from stages.language.rules.activity_thresholds import (
    ActivityThresholds,
    HandThresholds,
    PostureThresholds,
    StrideThresholds,
)


class Thresholds(StageConfig):
    """Limits of the rules. Names with `on` and `off` are hysteresis: a movement starts above `on` and ends below `off`."""

    smoothing_s: float = 0.05
    """Sigma of the Gaussian over joint positions, seconds."""
    travel_smoothing_s: float = 0.2
    """Sigma of the Gaussian over root path and heading, seconds: longer than the sway of a step."""
    min_confidence: float = 0.45
    """Parts with a lower mean joint confidence are out of view and not described, except arms that are visible while they
    move."""
    event_confidence: float = 0.25
    """An arm movement with a lower mean joint confidence is discarded."""
    sure_confidence: float = 0.65
    """An arm movement with at least this confidence is kept whatever the other arm does."""
    surer_by: float = 0.2
    """Below `sure_confidence`, a movement is discarded if the other arm moves at the same time with a confidence higher by
    this margin: detectors tend to place a hidden hand onto the visible one."""
    shortest_s: float = 0.15
    """Minimum duration of a movement; shorter ones are noise."""

    travel_on_mps: float = 0.24
    """Pelvis speed over the ground above which a person travels."""
    travel_off_mps: float = 0.12
    """Speed below which travelling has stopped."""
    travel_least_m: float = 0.35
    """Minimum path length of travelling."""
    travel_least_s: float = 0.5
    """Minimum duration of travelling."""
    run_mps: float = 2.3
    """Speed above which a gait is always a run."""
    run_slowest_mps: float = 1.2
    """Speed below which a gait is never a run; in between the pelvis rhythm decides."""
    jog_mps: float = 2.2
    """Mean speed below which a run is a jog."""
    run_bounce_m: float = 0.009
    """Minimum standard deviation of the pelvis height in a slow run."""
    run_agreement: float = 0.3
    """Minimum correlation of pelvis height and leg spread in a slow run; it is negative in a walk."""
    run_flight_m: float = 0.02
    """Height of both feet above which a stride flies."""
    run_flight_share: float = 0.04
    """Minimum share of a run in flight; without it a run has a runner's knees."""
    run_knee_rad: float = 1.25
    """Flexion that both knees reach in every stride of a run; in a walk it stays near 1.1."""
    run_rhythm_s: float = 0.9
    """Minimum duration for measuring the pelvis rhythm: more than a stride."""
    diagonal_rad: float = 0.26
    """Angle between facing and travel direction above which a walk is diagonal."""
    side_rad: float = 0.87
    """Angle between facing and travel direction above which it is a sidestep; above pi minus this it is backwards."""

    turn_least_rad: float = 0.7
    """Minimum change of heading in a turn."""
    turn_rate_radps: float = 0.12
    """Yaw rate below which a turn pauses."""
    turn_pause_s: float = 0.6
    """Maximum pause within a turn; a longer one separates two turns."""
    turn_undone_s: float = 1.0
    """Time for which a person faces another way at least; a turn that is undone sooner is none."""
    turn_around_rad: float = 2.5
    """Change of heading above which a turn is a turn around."""
    spin_rad: float = 5.2
    """Change of heading above which a quick turn is a spin."""
    spin_radps: float = 1.6
    """Mean yaw rate above which a turn is quick."""

    upside_down: float = -0.3
    """Vertical component of the pelvis' up axis below which a person is upside down."""
    upright_again: float = 0.75
    """Vertical component above which a person is upright again."""
    tumble_least_rad: float = 3.6
    """Minimum rotation of a roll, flip or cartwheel."""
    roll_ratio: float = 0.45
    """In a roll the pelvis goes below this share of its standing height."""

    flight_m: float = 0.05
    """Both feet are higher than this above their standing height during a jump."""
    flight_s: float = 0.1
    """Minimum duration of a flight."""
    flight_longest_s: float = 0.9
    """Maximum duration of a flight: a body in the air for longer is held by something."""
    jump_least_m: float = 0.1
    """Minimum rise of the pelvis in a jump."""
    jump_knee_rad: float = 0.4
    """Minimum change of a knee around a flight: separates push-off and landing from a drifting root."""
    jump_pelvis_ratio: float = 0.9
    """In a jump the pelvis rises above this share of its standing height."""
    leap_factor: float = 2.2
    """Factor on the minimum rise of a jump while running."""

    squat_least_m: float = 0.16
    """Minimum lowering of the pelvis in a squat."""
    squat_knee_rad: float = 0.9
    """Minimum flexion of both knees at the bottom of a squat."""
    bow_least_rad: float = 0.36
    """Minimum forward lean of the trunk in a bow."""
    bow_pelvis_ratio: float = 0.82
    """The pelvis stays above this share of its standing height in a bow."""
    bow_deep_rad: float = 0.95
    """Lean above which a bow is deep."""
    bow_slow_mps: float = 0.6
    """Maximum pelvis speed during a bow."""
    bend_down_rad: float = 0.9
    """Lean above which a person whose pelvis sinks too bends down."""

    upright_rad: float = 0.9
    """The trunk is upright below this tilt, and lying or on all fours above it."""
    lie_ratio: float = 0.4
    """Lying: pelvis and neck are below this share of the pelvis' standing height."""
    sit_ratio: float = 0.75
    """Sitting: the pelvis is below this share of its standing height."""
    sit_behind_ratio: float = 0.26
    """Sitting: the pelvis is behind the ankles by more than this share of the leg, out of balance for standing."""
    posture_least_s: float = 0.6
    """Minimum duration of sitting, lying or crawling."""
    crawl_mps: float = 0.1
    """Minimum speed of a crawl."""
    creep_mps: float = 0.2
    """Minimum speed of a crawl flat on the ground; below it the person lies."""
    crawl_least_m: float = 0.25
    """Minimum path length of a crawl."""
    hands_down_m: float = 0.3
    """Maximum height of the wrists in a crawl or cartwheel."""
    stand_least_s: float = 1.0
    """Minimum duration of standing that is reported."""

    raise_least_m: float = 0.25
    """Minimum change of a wrist's height."""
    chest_ratio: float = 0.4
    """A hand is raised if it is less than this share of the arm below the shoulder."""
    raise_both_ratio: float = 0.6
    """A rise of one wrist by at least `raise_least_m` is one of both arms if the other rises by this share of it meanwhile."""
    raise_shared: float = 0.6
    """Maximum share of a raise or lowering that other movements of the arm may cover."""
    wave_least_m: float = 0.055
    """Minimum width of each half cycle of a wave, hand relative to the elbow."""
    wave_other_m: float = 0.13
    """Minimum mean width of a wave that is not sideways."""
    wave_arm_m: float = 0.12
    """Minimum width of each half cycle of a wave with the whole arm, hand relative to the shoulder."""
    wave_overhead_ratio: float = 0.1
    """In a wave with the whole arm the hand stays higher than this share of the arm above the shoulder."""
    wave_wide_m: float = 0.15
    """Mean width above which `wave_halves` half cycles suffice; narrower waves need one more."""
    wave_halves: int = 3
    """Minimum number of half cycles of a wave."""
    wave_longest_half_s: float = 0.9
    """Maximum duration of a half cycle of a wave."""
    wave_uneven: float = 0.7
    """Maximum coefficient of variation of the half cycles' durations: waving is rhythmic."""
    wave_mps: float = 0.25
    """Minimum mean speed of a waving hand."""
    wave_travel_mps: float = 0.3
    """Mean speed of the pelvis above which only a person who goes straight ahead waves."""
    wave_turn_radps: float = 0.8
    """Maximum mean yaw rate of a waving person."""
    wave_upright_m: float = 0.06
    """Minimum height of a waving hand above the elbow."""
    wave_lowest_ratio: float = -0.5
    """Minimum height of a waving hand above the shoulder, as a share of the arm."""
    swing_least_m: float = 0.12
    """Minimum width of an arm swinging to and fro."""
    swing_once_m: float = 0.42
    """Minimum width of a single swing."""
    reach_ratio: float = 0.82
    """An arm reaches if the wrist is farther from the shoulder than this share of the arm's length."""
    reach_least_m: float = 0.2
    """Minimum displacement of the wrist away from the shoulder."""
    reach_highest_ratio: float = 0.2
    """A reaching hand stays below this share of the arm above the shoulder; a higher one is raised."""
    punch_mps: float = 1.15
    """Minimum top speed of the wrist relative to the shoulder in a punch."""
    punch_travel_mps: float = 1.6
    """Body speed above which a fast forward arm movement is an arm swing."""
    punch_height_ratio: float = 0.5
    """A punch ends within this share of the arm above or below the shoulder."""
    punch_from_ratio: float = 0.2
    """A punch begins lower than this share of the arm above the shoulder."""
    punch_bent_rad: float = 1.5
    """Minimum elbow flexion at the start of a punch."""
    punch_reach_ratio: float = 0.6
    """Minimum final horizontal distance of the fist from the shoulder, as a share of the arm."""
    punch_way_ratio: float = 0.25
    """Minimum outward displacement of the fist, as a share of the arm."""
    punch_longest_s: float = 0.6
    """Maximum duration of a punch."""
    punch_straight_rad: float = 1.1
    """Maximum elbow flexion at the end of a punch."""
    bend_least_rad: float = 0.7
    """Minimum change of an elbow's or a knee's flexion."""
    circle_least_m: float = 0.12
    """Minimum radius of a circling wrist."""
    circle_travel_mps: float = 0.5
    """Body speed above which a circling hand is an arm swing."""
    circle_least_rad: float = 5.5
    """Minimum rotation of a circle."""

    foot_on_mps: float = 0.5
    """Speed of an ankle above which the foot is moving."""
    foot_off_mps: float = 0.25
    """Speed below which the foot has stopped."""
    foot_going_share: float = 0.3
    """Share of the body's speed that is subtracted from the ankle's speed before these limits apply."""
    foot_noise_mps: float = 0.5
    """Maximum ankle speed that counts as jitter of the fit; a foot that is never slower is moving."""
    step_sure_m: float = 0.2
    """Distance of two foot plants above which a foot that hardly leaves the ground has stepped too."""
    step_lift_m: float = 0.015
    """Minimum height to which the foot of a shorter step is lifted: in a fit a planted ankle jitters sideways."""
    step_least_m: float = 0.08
    """Minimum distance between two foot plants."""
    lift_least_m: float = 0.12
    """Minimum height of a foot that is raised without a step."""
    leg_swing_m: float = 0.3
    """Minimum excursion of a foot that swings away and back without a step."""
    kick_lift_m: float = 0.22
    """Minimum height of a kicking foot above its standing height; twice that in a run."""
    kick_away_ratio: float = 0.55
    """Minimum distance of a kicking foot ahead of the hip or to its side, as a share of the leg."""
    kick_straight_ratio: float = 0.7
    """Minimum distance of a kicking ankle from the hip, as a share of the leg."""
    kick_mps: float = 3.2
    """Minimum top speed of a kicking foot relative to the hip."""
    kick_standing_ratio: float = 0.6
    """Factor on the minimum height and speed of a kick for a standing person."""
    kick_standing_mps: float = 0.5
    """Pelvis speed below which a person is standing."""

    torso_least_rad: float = 0.3
    """Minimum change of the trunk's lean."""
    twist_least_rad: float = 0.6
    """Minimum change of the trunk's twist."""

    activities: ActivityThresholds = ActivityThresholds()
    """Dancing, climbing, hanging, pedalling, handstands."""
    hands: HandThresholds = HandThresholds()
    """Clapping, hands at the face, throwing, and what makes a punch."""
    postures: PostureThresholds = PostureThresholds()
    """Standing, sitting, kneeling, and bending to the ground."""
    strides: StrideThresholds = StrideThresholds()
    """Ways on which body and legs agree, and walking on the spot."""
