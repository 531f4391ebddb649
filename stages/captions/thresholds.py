"""What the caption rules call a movement: metres, radians and seconds."""

from stages.base import StageConfig


class Thresholds(StageConfig):
    """Limits of the rules. Where a name says `on` and `off`, a movement starts above the one and ends below the other."""

    smoothing_s: float = 0.05
    """Sigma of the Gaussian over joint positions, seconds."""
    travel_smoothing_s: float = 0.2
    """Sigma of the Gaussian over the way and the heading, seconds: longer than the sway of a step."""
    min_confidence: float = 0.3
    """Parts whose joints have a lower mean confidence are out of view: nothing is said about what they do."""
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
    run_mps: float = 1.85
    """Mean speed from which walking is running."""
    side_rad: float = 0.87
    """Angle between facing and moving from which it is a step to the side; beyond pi minus this it is backwards."""

    turn_least_rad: float = 0.7
    """Smallest change of heading that is a turn."""
    turn_rate_radps: float = 0.12
    """Yaw rate below which a turn pauses."""
    turn_pause_s: float = 0.6
    """A longer pause makes two turns of one."""
    spin_rad: float = 5.2
    """Change of heading from which a turn is a spin."""

    flight_m: float = 0.05
    """Both feet are higher than this above their standing height during a jump."""
    flight_s: float = 0.1
    """Shortest flight."""
    jump_least_m: float = 0.1
    """Least rise of the pelvis in a jump."""

    squat_least_m: float = 0.16
    """Least lowering of the pelvis in a squat."""
    squat_knee_rad: float = 0.9
    """Both knees are bent by more than this at the bottom."""
    bow_least_rad: float = 0.45
    """Least forward lean of the trunk in a bow."""
    bow_pelvis_ratio: float = 0.82
    """The pelvis stays above this share of its standing height in a bow."""

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
    hands_down_m: float = 0.3
    """The wrists are below this height in a crawl."""
    stand_least_s: float = 1.0
    """Shortest time of standing that is worth saying."""

    raise_least_m: float = 0.25
    """Least change of a wrist's height."""
    chest_ratio: float = 0.4
    """A hand is raised once it is higher than this share of the arm below the shoulder."""
    wave_least_m: float = 0.08
    """Least width of a wave of the hand."""
    wave_halves: int = 3
    """Least number of movements to one side and the other."""
    wave_longest_half_s: float = 0.8
    """Slowest wave, seconds from one side to the other."""
    swing_least_m: float = 0.12
    """Least width of an arm that swings to and fro."""
    swing_once_m: float = 0.42
    """Least width of a single swing."""
    reach_ratio: float = 0.82
    """An arm reaches when the wrist is farther from the shoulder than this share of the arm's length."""
    reach_least_m: float = 0.25
    """Least way of the wrist away from the shoulder."""
    punch_mps: float = 1.3
    """Speed of the wrist, forwards and relative to the pelvis, from which straightening a bent arm is a punch."""
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
    step_least_m: float = 0.08
    """Least distance between two places where a foot stands."""
    lift_least_m: float = 0.12
    """Least height of a foot that is raised without a step."""
    kick_lift_m: float = 0.2
    """Least height of a kicking foot above its standing height."""
    kick_ahead_ratio: float = 0.35
    """The foot is ahead of the hip by this share of the leg in a kick."""
    kick_mps: float = 1.8
    """Least top speed of a kicking foot."""
    kick_knee_rad: float = 1.6
    """The knee of a kicking leg is bent by less than this when the foot is highest."""

    torso_least_rad: float = 0.3
    """Least change of the trunk's lean."""
    twist_least_rad: float = 0.6
    """Least change of the trunk's twist."""
