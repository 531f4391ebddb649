"""What networks and optical flow see in pictures: person detection, keypoints, camera rotation."""
