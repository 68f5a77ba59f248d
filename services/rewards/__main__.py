"""python -m services.rewards api|worker|all|migrate|job rebuild"""

from services.rewards.main import SERVICE
from services.rewards.settings import Settings

SERVICE.run(Settings)
