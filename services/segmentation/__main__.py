"""python -m services.segmentation api|worker|all|migrate|job rebuild"""

from services.segmentation.main import SERVICE
from services.segmentation.settings import Settings

SERVICE.run(Settings)
