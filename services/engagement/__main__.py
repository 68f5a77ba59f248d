"""python -m services.engagement api|worker|all|migrate|job rebuild"""

from services.engagement.main import SERVICE
from services.engagement.settings import Settings

SERVICE.run(Settings)
