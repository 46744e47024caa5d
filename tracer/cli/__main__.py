"""python -m tracer.cli"""

from tracer.cli import run

run()
