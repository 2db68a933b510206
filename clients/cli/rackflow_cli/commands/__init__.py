"""One module per noun; those that look at the cloud, handle blueprints or act on this machine have one each."""
