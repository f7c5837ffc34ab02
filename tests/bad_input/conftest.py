KINDS = 'silent', 'unclear', 'hung', 'over memory'


def pytest_terminal_summary(terminalreporter):
    """Sum the table up, whichever processes its cases ran in."""
    verdicts = [
        dict(report.user_properties)['verdict']
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, 'when', None) == 'call' and 'verdict' in dict(report.user_properties)
    ]
    if verdicts:
        counts = (f'{kind} {verdicts.count(kind)}' for kind in KINDS)
        terminalreporter.write_line(f'bad input: {len(verdicts)} cases: {", ".join(counts)}')
