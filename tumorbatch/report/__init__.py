"""Build reports: one HTML page with its template, charts, and their style.

Nothing here computes what a report shows, or knows which command shows it.
"""
