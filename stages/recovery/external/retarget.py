"""Transfer from one body model to another: rotations relative to the rest poses, the path scaled by the ratio of leg lengths.

The same method as for motion capture (`stages.mocap.retarget`), with the mean body of the result's model as the source
skeleton: the person's shape has no meaning on another body, so the betas become zero. The ground is not computed here.
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
    """Rotations and pelvis of `body`, with betas zero, in the same world scaled by the third value.

    `source` is smpl, smplh or smplx; frames at `FPS`, Y up. Everything else in that world, such as a camera, has to be scaled
    about the origin by the same factor, so that it sees the body where it saw the source.
    """
    # With the first frame twice it is never taken for the leading T-pose of an export, which retargeting drops.
    frames = [0, *range(len(rotations))]
    offsets = mean_offsets(source)
    take = Take(
        format=source,
        names=SMPL_JOINTS[:_JOINTS],
        parents=SMPL_PARENTS[:_JOINTS],
        offsets=offsets,
        rotations=rotations[frames, :_JOINTS].double().numpy(),
        moving_offsets={0: pelvis[frames].double().numpy()},
        times_s=np.arange(len(frames)) / FPS,
        metres_per_unit=1.0,
    )
    retargeted = retarget(take, replace(KNOWN_MAPS["amass"], up="y"), body)
    to_source = retargeted.to_source.astype(np.float64)
    scale = float(np.cbrt(np.linalg.det(to_source[:3, :3])))
    rotation = torch.from_numpy(to_source[:3, :3] / scale).float()
    translation = torch.from_numpy(to_source[:3, 3] / scale).float()
    pelvis_at_rest = body.rest_joints(torch.zeros(NUM_SHAPES))[joint("pelvis")]
    world_rotations = retargeted.rotations[1:].clone()
    world_rotations[:, 0] = rotation @ world_rotations[:, 0]
    return world_rotations, (retargeted.trans[1:] + pelvis_at_rest) @ rotation.T + translation, 1 / scale
