"""Stages: one verb a file. A record comes in, records or rejections go out."""
