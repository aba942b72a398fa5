from bkformat.cli import main

main()
