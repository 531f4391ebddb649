"""Records, ids, skeleton, rotations, body model, shard reading and writing. Imports no other humo package."""
