<?php
// The way in.
require 'page.php';
$name = $_POST['name'] ?? '';
$problem = '';
if ($name !== '') {
    $found = rows(
        shop(),
        'SELECT name FROM users WHERE name = ? AND password = SHA2(?, 256) ORDER BY id LIMIT 1',
        [$name, $_POST['password'] ?? '']
    );
    if ($found) {
        session_start();
        $_SESSION['name'] = $found[0][0];
        header('Location: account.php', true, 302);
        exit;
    }
    $problem = "<p class=\"problem\">Wrong name or password.</p>\n";
}
head('Log in');
echo $problem, "<form method=\"post\"><input name=\"name\"><input name=\"password\" type=\"password\">",
    "<button>Log in</button></form>\n<p><a href=\"register.php\">New here?</a></p>\n";
foot();
