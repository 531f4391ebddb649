"""A dataset on disk or in a bucket: commits, packing, catalogue, versions, lease, verification."""
