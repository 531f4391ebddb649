"""Captions from kinematics: timed events of body and parts, and the sentences made of them."""
