"""Run a command for the project that train.py in the current folder defines."""

from train import PROJECT
from training import main

main(PROJECT)
