"""From one body model to another: rotations relative to the rest poses, the path by the ratio of the legs' lengths.

The same road as motion capture takes (`stages.mocap.retarget`), with the mean body of the result's model as the source's
skeleton: the person's own shape means nothing on another body, so the betas become zero. The ground is left to whoever
fits it to the feet.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from schemas.body_model import NUM_SHAPES, BodyModel
from schemas.records import FPS
from schemas.skeleton import SMPL_JOINTS, SMPL_PARENTS, joint
from stages.mocap.retarget import retarget
from stages.mocap.skeletons import KNOWN_MAPS
from stages.mocap.take import Take
from stages.recovery.external.worlds import mean_offsets

_JOINTS = 22


def to_other_body(
    rotations: Float[Tensor, "T 24 3 3"], pelvis: Float[Tensor, "T 3"], source: str, body: BodyModel
) -> tuple[Float[Tensor, "T 24 3 3"], Float[Tensor, "T 3"], float]:
    """Rotations and pelvis of `body` in the same world made larger by the factor that comes third, with betas zero.

    `source` is smpl, smplh or smplx; frames at `FPS`, Y up. Whatever else stands in that world, as a camera, has to be
    moved away from the origin by the same factor, so that it sees the body where it saw the source.
    """
    # The first frame twice: an export's T-pose would be dropped from the front, and nothing here is one.
    frames = [0, *range(len(rotations))]
    offsets = mean_offsets(source)
    take = Take(
        format=source,
        names=SMPL_JOINTS[:_JOINTS],
        parents=SMPL_PARENTS[:_JOINTS],
        offsets=offsets,
        rotations=rotations[frames, :_JOINTS].double().numpy(),
        moving={0: pelvis[frames].double().numpy()},
        times_s=np.arange(len(frames)) / FPS,
        metres_per_unit=1.0,
    )
    moved = retarget(take, replace(KNOWN_MAPS["amass"], up="y"), body)
    back = moved.to_source.astype(np.float64)
    shrink = float(np.cbrt(np.linalg.det(back[:3, :3])))
    turn, shift = torch.from_numpy(back[:3, :3] / shrink).float(), torch.from_numpy(back[:3, 3] / shrink).float()
    at_rest = body.rest_joints(torch.zeros(NUM_SHAPES))[joint("pelvis")]
    turned = moved.rotations[1:].clone()
    turned[:, 0] = turn @ turned[:, 0]
    return turned, (moved.trans[1:] + at_rest) @ turn.T + shift, 1 / shrink
