"""``python -m terraform.check``: see :mod:`terraform.check.command`."""

from terraform.check.command import main

main()
