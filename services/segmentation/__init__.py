"""segmentation 用户分层: which layer of the audience each user is in, since when, and why."""
