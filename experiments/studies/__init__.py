"""What each study is made of: settings, runs, findings, page; a folder per study."""
