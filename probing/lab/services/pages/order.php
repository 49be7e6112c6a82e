<?php
// An order of a visitor who is logged in.
require 'page.php';
$name = visitor();
if ($name === '') {
    header('Location: login.php', true, 302);
    exit;
}
rows(
    shop(),
    'INSERT INTO orders (buyer, product, pieces) VALUES (?, ?, ?)',
    [$name, $_POST['product'] ?? '1', $_POST['pieces'] ?? '1']
);
head('Thank you');
echo "<p>We have your order and will send it soon.</p>\n";
foot();
