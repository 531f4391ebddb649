"""Solving the trajectory from keypoints, velocities and planted feet, each weighted by its noise."""

import torch

from stages.recovery.lifter.trajectory import TrajectorySettings, solve_path


def test_path_follows_rays_and_feet() -> None:
    frames = 60
    t = torch.arange(frames) / 30
    path = torch.stack([0.5 * t, torch.ones(frames), -5 + 0 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    points = torch.randn(frames, 17, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    camera = (points + path[:, None]) @ to_camera.mT
    rays = camera[..., :2] / camera[..., 2:]
    feet = torch.tensor([0.1, -1.0, 0.0]) - path[:, None]
    solved, camera_position = solve_path(
        points, rays, torch.ones(frames, 17), torch.full((frames,), 0.35), path + torch.tensor([0.0, 0.0, 0.4]), to_camera,
        torch.tensor([0.5, 0.0, 0.0]).expand(frames, 3), feet, torch.ones(frames, 1), TrajectorySettings(),
    )  # fmt: skip
    assert float((solved - path).norm(dim=-1).mean()) < 0.1
    assert not camera_position.any()
    assert float((solved.diff(dim=0) - path.diff(dim=0)).norm(dim=-1).max()) < 0.005


def test_clean_keypoints_outweigh_a_wrong_velocity_more_than_noisy_ones() -> None:
    frames = 60
    t = torch.arange(frames) / 30
    path = torch.stack([0.4 * t, torch.ones(frames), -5 + 0.8 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(frames, 17, 3, generator=generator) * 0.4
    camera = (points + path[:, None]) @ to_camera.mT
    rays = camera[..., :2] / camera[..., 2:]
    size = torch.full((frames,), 0.4)
    noise = 0.02 * size[:, None, None] * torch.randn(rays.shape, generator=generator)
    too_fast = 1.4 * torch.tensor([0.4, 0.0, 0.8]).expand(frames, 3)
    feet = torch.zeros(frames, 1, 3)
    lengths = [
        float(
            solve_path(
                points, rays + noise_scale * noise, torch.ones(frames, 17), size, path, to_camera, too_fast, feet,
                torch.zeros(frames, 1), TrajectorySettings(),
            )[0][[0, -1]].diff(dim=0).norm()
        )
        for noise_scale in (0, 1)
    ]  # fmt: skip
    true_length = float((path[-1] - path[0]).norm())
    assert lengths[0] < 1.1 * true_length
    assert lengths[0] < lengths[1] < 1.4 * true_length


def test_a_moving_camera_is_separated_from_a_walking_person() -> None:
    frames = 90
    t = torch.arange(frames) / 30
    path = torch.stack([0.8 * t, torch.ones(frames), -5 + 0 * t], -1)
    camera_path = torch.stack([0.5 * t, 0 * t, -0.2 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    points = torch.randn(frames, 17, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    points_in_camera = (points + (path - camera_path)[:, None]) @ to_camera.mT
    rays = points_in_camera[..., :2] / points_in_camera[..., 2:]
    feet = torch.tensor([0.1, -1.0, 0.0]) - path[:, None]
    solved, camera = solve_path(
        points, rays, torch.ones(frames, 17), torch.full((frames,), 0.35), path - camera_path, to_camera,
        torch.tensor([0.8, 0.0, 0.0]).expand(frames, 3), feet, torch.ones(frames, 1), TrajectorySettings(), moving_camera=True,
    )  # fmt: skip
    assert float((camera - camera_path).norm(dim=-1).max()) < 0.4
    assert float((solved.diff(dim=0) - path.diff(dim=0)).norm(dim=-1).max()) < 0.005


def test_sliding_feet_are_not_treated_as_planted() -> None:
    """Slow side steps away from the camera, one foot after the other, all of which the network predicts as contacts; it
    predicts two thirds of the speed."""
    frames = 150
    t = torch.arange(frames) / 30
    path = torch.stack([0 * t, torch.ones(frames), -4 - 0.33 * t], -1)
    to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(frames, 3, 3)
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(frames, 17, 3, generator=generator) * 0.4
    camera = (points + path[:, None]) @ to_camera.mT
    rays = camera[..., :2] / camera[..., 2:]
    size = 1.8 / camera[..., 2].mean(1)
    rays = rays + 0.02 * size[:, None, None] * torch.randn(rays.shape, generator=generator)
    steps = [(t - delay).floor() + (2 * ((t - delay) % 1)).clamp(max=1.0) for delay in (0.0, 0.0, 0.5, 0.5)]
    feet = torch.stack([torch.stack([0 * t, 0 * t, -4 - 0.33 * step], -1) for step in steps], dim=1) - path[:, None]
    velocity = torch.tensor([0.0, 0.0, -0.22]).expand(frames, 3)
    lengths = [
        float(
            solve_path(
                points, rays, torch.ones(frames, 17), size, path, to_camera, velocity, feet, torch.ones(frames, 4), settings,
            )[0][[0, -1]].diff(dim=0).norm()
        )
        for settings in (TrajectorySettings(), TrajectorySettings(max_slide_mps=1e6))
    ]  # fmt: skip
    true_length = float((path[-1] - path[0]).norm())
    assert abs(lengths[0] - true_length) < 0.15 * true_length
    assert lengths[1] < 0.75 * true_length
