"""Somebody at a browser: opens an address, fills in the forms that come, reads the page at the end."""

import mechanicalsoup
import requests


class Person:
    """Signs in under any name, since oidc-provider's own log-in pages take every one; Django's knows ada."""

    def __init__(self, name="ada", ca_file=True):
        self.browser = mechanicalsoup.StatefulBrowser(raise_on_404=False)
        self.browser.session.trust_env = False  # a proxy in the environment is not for a loopback address
        self.browser.session.verify = ca_file
        self.answers = {"login": name, "username": name, "password": "any will do"}

    def approve(self, address, **answers):
        """Says yes until nothing is asked, or something is wrong, and returns the text of the last page."""
        self.browser.open(address)
        while self.browser.page.form and not self.browser.page.find(class_="errorlist"):
            self._submit(answers)
        return self._text()

    def approve_and_copy(self, address):
        """The same where nothing listens at the end: what then stands in the browser's address bar."""
        try:
            self.approve(address)
        except requests.ConnectionError as unreachable:
            return unreachable.request.url
        raise AssertionError(f"something answered at {self.browser.url}")

    def decline(self, address, **answers):
        """Goes on until there is something to cancel, cancels, and returns the text of the last page."""
        self.browser.open(address)
        while not self._cancel():
            self._submit(answers)
        return self._text()

    def _submit(self, answers):
        form = self.browser.select_form()
        for name, value in {**self.answers, **answers}.items():
            if form.form.find("input", {"name": name}):
                form[name] = value
        # Django's consent page has its "Cancel" first.
        self.browser.submit_selected(form.form.find("input", {"name": "allow"}))

    def _cancel(self):
        page = self.browser.page
        if page.find("a", string="[ Cancel ]"):
            self.browser.follow_link(link_text="[ Cancel ]")
        elif page.find("button", {"name": "abort"}):
            # The button stands outside of the form that it belongs to.
            self.browser.select_form().set("abort", "yes", force=True)
            self.browser.submit_selected()
        elif no := page.find("input", {"value": "Cancel"}) or page.find("button", {"value": "deny"}):
            self.browser.select_form()
            self.browser.submit_selected(no)
        else:
            return False
        return True

    def _text(self):
        return self.browser.page.get_text(" ", strip=True)
