"""profile 用户画像: what each fan has done, seen per subject and asked per user."""
