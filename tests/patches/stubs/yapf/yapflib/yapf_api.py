def FormatCode(text, **options):
    """The text, and whether it was changed."""
    return text, False
