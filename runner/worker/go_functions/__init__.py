"""What templates call that were translated from Go: its functions, and sprig's, as `go_` names in Jinja2.

Which of them exist, and how a template is translated, is `repository.go_template`'s.
"""
