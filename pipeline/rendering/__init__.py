"""Pictures of motions: drawn skeletons, overlays on video, 3D animations for pages."""
