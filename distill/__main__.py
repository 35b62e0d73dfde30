"""`python -m distill`, which `accelerate launch -m distill` needs."""

from distill.cli import main

if __name__ == "__main__":
    main()
