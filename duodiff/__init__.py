"""DuoDiff: a shallow diffusion backbone for the noisy timesteps, the full one for the rest.

Importing the package imports nothing heavy; each module states the part of the paper it implements.
"""

__version__ = "0.1.0"
