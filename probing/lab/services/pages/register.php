<?php
// New visitors.
require 'page.php';
$name = $_POST['name'] ?? '';
$problem = '';
if ($name !== '') {
    $shop = shop();
    if (rows($shop, 'SELECT id FROM users WHERE name = ?', [$name])) {
        $problem = "<p class=\"problem\">This name is taken.</p>\n";
    } else {
        rows(
            $shop,
            'INSERT INTO users (name, email, password) VALUES (?, ?, SHA2(?, 256))',
            [$name, $_POST['email'] ?? '', $_POST['password'] ?? '']
        );
        header('Location: login.php', true, 302);
        exit;
    }
}
head('Register');
echo $problem, "<form method=\"post\"><input name=\"name\"><input name=\"email\">",
    "<input name=\"password\" type=\"password\"><button>Register</button></form>\n";
foot();
