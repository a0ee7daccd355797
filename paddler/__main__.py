"""``python -m paddler``."""

from paddler.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
