"""What all tests share: machines that are busy with other things make no test fail by the time that it takes."""

from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
