"""What all commands share: command line, device, progress, studies, ledger of trainings."""
