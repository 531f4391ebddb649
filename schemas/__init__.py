"""Records, ids, skeleton, rotations, body model, reading and writing of shards. Imports nothing else of humo."""
