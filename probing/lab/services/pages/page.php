<?php
// What all pages share: the database, the visitor, head and foot.
require 'query.php';

set_exception_handler(function (Throwable $problem): void {
    http_response_code(500);
    echo "<p class=\"problem\">The shop has a problem. Please come back later.</p>\n</body></html>\n";
});

function shop(): mysqli
{
    $shop = new mysqli('localhost', 'shop', 'shop', 'shop');
    $shop->set_charset('utf8mb4');
    return $shop;
}

// Name of the visitor who is logged in, "" for a stranger.
function visitor(): string
{
    if (isset($_COOKIE[session_name()])) {
        session_start();
    }
    return $_SESSION['name'] ?? '';
}

function text(?string $words): string
{
    return htmlspecialchars($words ?? '');
}

function head(string $title): void
{
    $name = visitor();
    $greeting = $name === '' ? '<a href="login.php">Log in</a>' : '<a href="account.php">' . text($name) . '</a>';
    echo "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>$title</title>\n",
        "<link rel=\"stylesheet\" href=\"style.css\"></head>\n<body>\n",
        "<nav><a href=\"index.php\">Lamps &amp; Lanterns</a> $greeting</nav>\n",
        "<form action=\"search.php\"><input name=\"q\" placeholder=\"Search\"></form>\n<h1>$title</h1>\n";
}

function foot(): void
{
    echo "<footer>Lamps &amp; Lanterns, 7 Harbour Street</footer>\n</body></html>\n";
}

function products(array $rows): void
{
    echo "<table class=\"products\">\n";
    foreach ($rows as [$id, $name, $price]) {
        echo '<tr><td><a href="product.php?id=', text($id), '">', text($name), '</a></td><td>', text($price),
            "</td></tr>\n";
    }
    echo "</table>\n";
}
