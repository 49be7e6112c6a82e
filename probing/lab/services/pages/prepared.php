<?php
// Answers of the database, asked with prepared statements: whatever the visitor's words are, they stay words.
function rows(mysqli $shop, string $statement, array $words): array
{
    $asked = $shop->prepare($statement);
    $asked->execute($words);
    $found = $asked->get_result();
    return $found instanceof mysqli_result ? $found->fetch_all() : [];
}
