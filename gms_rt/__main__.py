"""`python -m gms_rt` is `gms-rt`."""

from gms_rt.cli.main import main

if __name__ == "__main__":
    main()
