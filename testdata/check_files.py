"""What the checks of files share: they run for each file named on the command line."""
import sys


def main(check, usage):
    if len(sys.argv) < 2:
        sys.exit(usage)
    failed = False
    for path in sys.argv[1:]:
        print(path)
        try:
            check(path)
        except Exception as e:  # whatever it is, the file is not good
            print(f"  FAILED: {type(e).__name__}: {e}")
            failed = True
    sys.exit(failed)
