"""Results of a run as people read them: tables, pictures, pages."""

from smgeo.report.map_pictures import draw_map
from smgeo.report.page import write_report
from smgeo.report.slider import write_animation, write_slider

__all__ = ["draw_map", "write_animation", "write_report", "write_slider"]
