"""What the caption rules call a movement: metres, radians and seconds."""

from stages.base import StageConfig


class Thresholds(StageConfig):
    """Limits of the rules. Where a name says `on` and `off`, a movement starts above the one and ends below the other."""

    smoothing_s: float = 0.05
    """Sigma of the Gaussian over joint positions, seconds."""
    travel_smoothing_s: float = 0.2
    """Sigma of the Gaussian over the way and the heading, seconds: longer than the sway of a step."""
    min_confidence: float = 0.45
    """Parts whose joints have a lower mean confidence are out of view: nothing is said about what they do, but for arms that
    come into sight while they do it."""
    event_confidence: float = 0.25
    """A movement of an arm whose joints have a lower mean confidence meanwhile is not believed."""
    sure_confidence: float = 0.65
    """A movement of an arm from this confidence on is believed whatever the other arm does."""
    surer_by: float = 0.2
    """Below it the other arm must not move at the same time with a confidence higher by this much: a detector puts a hand
    that it does not see onto the one that it sees."""
    shortest_s: float = 0.15
    """Movements shorter than this are noise."""

    travel_on_mps: float = 0.24
    """Speed of the pelvis over the ground above which a person goes somewhere."""
    travel_off_mps: float = 0.12
    """Speed below which they have stopped."""
    travel_least_m: float = 0.35
    """Shortest way that counts as going somewhere."""
    travel_least_s: float = 0.5
    """Shortest time of it."""
    run_mps: float = 2.3
    """Speed from which nobody walks."""
    run_slowest_mps: float = 1.2
    """Speed below which nobody runs; in between the rhythm decides."""
    jog_mps: float = 2.2
    """Mean speed below which a run is a jog."""
    run_bounce_m: float = 0.009
    """Least deviation of the pelvis' height in a slow run."""
    run_agreement: float = 0.3
    """Correlation of the pelvis' height with the spread of the legs from which it is a run: a walk's is negative."""
    run_rhythm_s: float = 0.6
    """Shortest time in which a rhythm shows."""
    diagonal_rad: float = 0.26
    """Angle between facing and moving from which somebody walks forwards and to a side."""
    side_rad: float = 0.87
    """Angle between facing and moving from which it is a step to the side; beyond pi minus this it is backwards."""

    turn_least_rad: float = 0.7
    """Smallest change of heading that is a turn."""
    turn_rate_radps: float = 0.12
    """Yaw rate below which a turn pauses."""
    turn_pause_s: float = 0.6
    """A longer pause makes two turns of one."""
    turn_around_rad: float = 2.5
    """Change of heading from which somebody turns around."""
    spin_rad: float = 5.2
    """Change of heading from which a quick turn is a spin."""
    spin_radps: float = 1.6
    """Yaw rate from which it is quick."""

    upside_down: float = -0.3
    """Height of the pelvis' own up axis below which somebody is upside down."""
    upright_again: float = 0.75
    """Height of it from which they are upright again."""
    tumble_least_rad: float = 3.6
    """Least angle that a roll, a flip or a cartwheel goes round."""
    roll_ratio: float = 0.45
    """In a roll the pelvis gets below this share of its standing height."""

    flight_m: float = 0.05
    """Both feet are higher than this above their standing height during a jump."""
    flight_s: float = 0.1
    """Shortest flight."""
    jump_least_m: float = 0.1
    """Least rise of the pelvis in a jump."""
    jump_knee_rad: float = 0.4
    """Least change of a knee around a flight: legs push off and land, a path that drifts does not."""
    jump_pelvis_ratio: float = 0.9
    """In a jump the pelvis gets higher than this share of its standing height."""
    leap_factor: float = 2.2
    """In a run a jump rises this many times as high."""

    squat_least_m: float = 0.16
    """Least lowering of the pelvis in a squat."""
    squat_knee_rad: float = 0.9
    """Both knees are bent by more than this at the bottom."""
    bow_least_rad: float = 0.36
    """Least forward lean of the trunk in a bow."""
    bow_pelvis_ratio: float = 0.82
    """The pelvis stays above this share of its standing height in a bow."""
    bow_deep_rad: float = 0.95
    """Lean of a deep bow."""
    bow_slow_mps: float = 0.6
    """Speed below which somebody may be said to bow."""
    bend_down_rad: float = 0.9
    """Lean from which somebody whose pelvis sinks along bends down."""

    upright_rad: float = 0.9
    """The trunk is upright below this tilt, and lying or on all fours above it."""
    lie_ratio: float = 0.4
    """Lying: pelvis and neck are below this share of the pelvis' standing height."""
    sit_ratio: float = 0.75
    """Sitting: the pelvis is below this share of its standing height."""
    sit_behind_ratio: float = 0.26
    """Sitting: the pelvis is behind the ankles by more than this share of the leg, where nobody could stand."""
    posture_least_s: float = 0.6
    """Shortest time of sitting, lying or crawling."""
    crawl_mps: float = 0.1
    """Least speed of a crawl."""
    creep_mps: float = 0.2
    """Least speed of it flat on the ground, where others lie."""
    crawl_least_m: float = 0.25
    """Least way of it."""
    hands_down_m: float = 0.3
    """The wrists are below this height in a crawl."""
    stand_least_s: float = 1.0
    """Shortest time of standing that is worth saying."""

    raise_least_m: float = 0.25
    """Least change of a wrist's height."""
    chest_ratio: float = 0.4
    """A hand is raised once it is higher than this share of the arm below the shoulder."""
    raise_shared: float = 0.6
    """Share of a raise or a lowering that other movements of the arm may cover."""
    wave_least_m: float = 0.055
    """Least width of each movement of a waving hand, relative to the elbow."""
    wave_other_m: float = 0.13
    """Least mean width of a wave that does not go sideways."""
    wave_arm_m: float = 0.12
    """The same of a wave with the whole arm, relative to the shoulder."""
    wave_overhead_ratio: float = 0.1
    """In such a wave the hand stays higher than this share of the arm above the shoulder."""
    wave_wide_m: float = 0.15
    """Mean width from which `wave_halves` movements are enough; narrower waves have one more."""
    wave_halves: int = 3
    """Least number of movements to one side and the other."""
    wave_longest_half_s: float = 0.9
    """Slowest wave, seconds from one side to the other."""
    wave_uneven: float = 0.7
    """Most that the times of these movements spread, as a share of their mean: waving has a beat."""
    wave_mps: float = 0.25
    """Least mean speed of a waving hand."""
    wave_upright_m: float = 0.06
    """A waving hand is higher than this above the elbow."""
    wave_lowest_ratio: float = -0.5
    """A waving hand is higher than this share of the arm above the shoulder."""
    swing_least_m: float = 0.12
    """Least width of an arm that swings to and fro."""
    swing_once_m: float = 0.42
    """Least width of a single swing."""
    reach_ratio: float = 0.82
    """An arm reaches when the wrist is farther from the shoulder than this share of the arm's length."""
    reach_least_m: float = 0.2
    """Least way of the wrist away from the shoulder."""
    reach_highest_ratio: float = 0.2
    """A reaching hand stays below this share of the arm above the shoulder: higher it is raised."""
    punch_mps: float = 0.95
    """Speed of the wrist relative to the shoulder from which straightening a bent arm is a punch."""
    punch_travel_mps: float = 1.6
    """Above this speed of the body an arm that shoots forwards is a swinging one."""
    punch_height_ratio: float = 0.5
    """A punch ends within this share of the arm above or below the shoulder."""
    punch_from_ratio: float = 0.2
    """It begins lower than this share of the arm above the shoulder."""
    punch_bent_rad: float = 1.5
    """The elbow is bent by more than this at its start."""
    punch_reach_ratio: float = 0.6
    """The fist gets farther from the shoulder than this share of the arm, over the ground."""
    punch_way_ratio: float = 0.25
    """Least way of it outwards, as a share of the arm."""
    punch_longest_s: float = 0.6
    """Longest time of it."""
    punch_straight_rad: float = 1.1
    """The elbow is bent by less than this at its end."""
    bend_least_rad: float = 0.7
    """Least change of an elbow or a knee."""
    circle_least_m: float = 0.12
    """Least radius of a circling wrist."""
    circle_travel_mps: float = 0.5
    """Above this speed of the body a circling hand is taken for a swinging arm."""
    circle_least_rad: float = 5.5
    """Least angle that it goes round."""

    foot_on_mps: float = 0.5
    """Speed of an ankle above which the foot is moving."""
    foot_off_mps: float = 0.25
    """Speed below which it has stopped."""
    foot_going_share: float = 0.3
    """A standing foot is slower than this share of the body's speed, and then some."""
    foot_noise_mps: float = 0.5
    """A foot that is never slower than this is really under way, and no jitter of the fit."""
    step_least_m: float = 0.08
    """Least distance between two places where a foot stands."""
    lift_least_m: float = 0.12
    """Least height of a foot that is raised without a step."""
    leg_swing_m: float = 0.3
    """Least way that a foot goes away and back without a step."""
    kick_lift_m: float = 0.22
    """Least height of a kicking foot above its standing height; twice that in a run."""
    kick_away_ratio: float = 0.55
    """The foot gets this share of the leg ahead of the hip or out to the side."""
    kick_straight_ratio: float = 0.7
    """The ankle is farther from the hip than this share of the leg."""
    kick_mps: float = 3.2
    """Least top speed of a kicking foot, relative to the hip."""
    kick_standing_ratio: float = 0.6
    """Of somebody who stays in place this share of that height and of that speed is enough."""
    kick_standing_mps: float = 0.5
    """Speed of the pelvis below which somebody stays in place."""

    torso_least_rad: float = 0.3
    """Least change of the trunk's lean."""
    twist_least_rad: float = 0.6
    """Least change of the trunk's twist."""
