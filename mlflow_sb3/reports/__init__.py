"""Plot episodes, record them as videos, and format their returns."""
