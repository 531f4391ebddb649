"""Descriptions of a motion by rules on its kinematics, without any learned model."""
