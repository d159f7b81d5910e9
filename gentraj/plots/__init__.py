"""Figures and the report page, which are written from arrays and know neither environments nor agents."""
