"""segmentation over REST."""

from services.segmentation.api import rfm, segments, users

ROUTERS = [users.router, segments.router, rfm.router]
