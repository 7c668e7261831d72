"""Text and pages that every report shares: tables in Markdown and HTML, one offline HTML page."""
