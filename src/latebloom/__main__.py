from latebloom.cli import main

main()
