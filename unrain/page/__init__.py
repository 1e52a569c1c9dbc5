"""The local page of `unrain demo`: one server, one queue, one page of HTML, CSS and JavaScript."""
