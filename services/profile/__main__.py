"""python -m services.profile api|worker|all|migrate|job rebuild"""

from services.profile.main import SERVICE
from services.profile.settings import Settings

SERVICE.run(Settings)
